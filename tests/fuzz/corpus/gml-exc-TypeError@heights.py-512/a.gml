<?xml version="1.0" encoding="utf-8" ?>
<ogr:FeatureCollection
     gml:id="aFeatureCollection"
     xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
     xsi:schemaLocation="http://ogr.maptools.org/ a.xsd"
     xmlns:ogr="http://ogr.maptools.org/"
     xmlns:gml="http://www.opengis.net/gml/3.2">
  <gml:boundedBy><gml:Envelope srsName="urn:ogc:def:crs:EPSG::32632"><gml:lowerCorner>685740 5542480</gml:lowerCorner><gml:upperCorner>685810 5542530</gml:upperCorner></gml:Envelope></gml:boundedBy>
                                                                                                                                                       
  <ogr:featureMember>
    <ogr:a gml:id="a.0">
      <gml:boundedBy><gml:Envelope srsName="urn:ogc:def:crs:EPSG::32632"><gml:lowerCorner>685740 5542480</gml:lowerCorner><gml:upperCorner>685770 5542530</gml:upperCorner></gml:Envelope></gml:boundedBy>
      <ogr:geometryProperty><gml:Polygon srsName="urn:ogc:def:crs:EPSG::32632" gml:id="a.geom.0"><gml:exterior><gml:LinearRing><gml:posList>685770 5542480 685770 5542530 685740 5542530 685740 5542480 685770 5542480</gml:posList></gml:LinearRing></gml:exterior></gml:Polygon></ogr:geometryProperty>
      <ogr:landuse>meadow</ogr:landuse>
      <ogr:building xsi:nil="true"/>
      <ogr:highway xsi:nil="true"/>
      <ogr:height xsi:nil="true"/>
    </ogr:a>
  </ogr:featureMember>
  <ogr:featureMember>
    <ogr:a gml:id="a.1">
      <gml:boundedBy><gml:Envelope srsName="urn:ogc:def:crs:EPSG::32632"><gml:lowerCorner>685780 5542480</gml:lowerCorner><gml:upperCorner>685810 5542530</gml:upperCorner></gml:Envelope></gml:boundedBy>
      <ogr:geometryProperty><gml:Polygon srsName="urn:ogc:def:crs:EPSG::32632" gml:id="a.geom.1"><gml:exterior><gml:LinearRing><gml:posList>685810 5542480 685810 5542530 685780 5542530 685780 5542480 685810 5542480</gml:posList></gml:LinearRing></gml:exterior></gml:Polygon></ogr:geometryProperty>
      <ogr:landuse>forest</ogr:landuse>
      <ogr:building xsi:nil="true"/>
      <ogr:highway xsi:nil="true"/>
      <ogr:height xsi:nil="true"/>
    </ogr:a>
  </ogr:featureMember>
  <ogr:featureMember>
    <ogr:a gml:id="a.2">
      <gml:boundedBy><gml:Envelope srsName="urn:ogc:def:crs:EPSG::32632"><gml:lowerCorner>685750 5542500</gml:lowerCorner><gml:upperCorner>685762 5542510</gml:upperCorner></gml:Envelope></gml:boundedBy>
      <ogr:geometryProperty><gml:Polygon srsName="urn:ogc:def:crs:EPSG::32632" gml:id="a.geom.2"><gml:exterior><gml:LinearRing><gml:posList>685762 5542500 685762 5542510 685750 5542510 685750 5542500 685762 5542500</gml:posList></gml:LinearRing></gml:exterior></gml:Polygon></ogr:geometryProperty>
      <ogr:landuse xsi:nil="true"/>
      <ogr:building>yes</ogr:building>
      <ogr:highway xsi:nil="true"/>
      <ogr:height>7.5</ogr:height>
    </ogr:a>
  </ogr:featureMember>
</ogr:FeatureCollection>
